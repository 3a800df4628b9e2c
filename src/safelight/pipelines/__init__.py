"""From a model folder and a prompt to pictures, each with what is needed to make it again."""
