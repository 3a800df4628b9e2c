"""From a picture to the hint of a ControlNet, without weights."""
