"""How each kind of network is spelled in others' files: keys and configurations, both ways."""
