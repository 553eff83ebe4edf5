"""The command line: option parsing only. One module per subcommand; ``gpunet.tools`` does the work."""
