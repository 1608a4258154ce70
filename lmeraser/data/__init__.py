"""Records, images and tensors, and the files that hold them."""
