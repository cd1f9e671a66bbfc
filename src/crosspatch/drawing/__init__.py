"""What all pictures share: style, panels, and text that fits."""
