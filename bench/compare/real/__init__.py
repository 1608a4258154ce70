"""Ours and its peers over backbones that were trained elsewhere, on features that are extracted once."""
