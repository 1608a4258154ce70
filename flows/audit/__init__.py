"""The proofs that `lmeraser audit` gives: a rebuild, and a drill of membership."""
