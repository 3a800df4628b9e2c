"""x"""


def evaluate():
    """x"""
