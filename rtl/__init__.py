if __name__ == "rtl":
    raise ImportError("import this package as ptewalk.rtl (install the project with 'make setup'), not as rtl")
