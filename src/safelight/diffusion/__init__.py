"""Diffusion without a network: noise levels, what a network's output means, samplers, guidance and
the training objective.
"""
