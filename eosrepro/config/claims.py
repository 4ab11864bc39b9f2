def claims(file, runs_of):
    return {}
