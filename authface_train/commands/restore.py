def restore():
    pass
