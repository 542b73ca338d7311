"""The client module of test scripts; its name keeps it apart from modules of theirs."""
