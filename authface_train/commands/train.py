def train_prior():
    pass


def train_restore():
    pass
