"""The command line and the wiring of the layers below; nothing else knows of argument parsing."""
