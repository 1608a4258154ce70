"""Images in, models out: the only room with torch, timm and scikit-learn."""
