if __name__ == "model":
    raise ImportError("import this package as ptewalk.model (install the project with 'make setup'), not as model")
