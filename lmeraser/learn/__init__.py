"""Images in, models out: the room with torch, timm and scikit-learn."""
