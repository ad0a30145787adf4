"""`python -m gateway.cli`: the command `voicegate` where its script is not on the path."""

from gateway.cli.main import main

main()
