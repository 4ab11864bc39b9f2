def training_code(members):
    return "x"


def diagnostic_code(name, members):
    return "x"


def figure_code(name):
    return "x"


def stage_code(name):
    return "x"
