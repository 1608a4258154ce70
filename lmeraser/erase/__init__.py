"""Pure decisions about erasing: who is kept out, what a request touches. Nothing here deletes."""
