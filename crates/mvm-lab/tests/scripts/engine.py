WHOSE = "the script"
