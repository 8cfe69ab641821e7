if __name__ == "cosim":
    raise ImportError("import this package as ptewalk.cosim (install the project with 'make setup'), not as cosim")
