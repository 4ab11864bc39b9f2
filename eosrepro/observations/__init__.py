"""One file a member: the file's name is the name in params.yaml."""
