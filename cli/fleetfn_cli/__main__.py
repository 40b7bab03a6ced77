"""`python -m fleetfn_cli` is `fn`."""

from fleetfn_cli.main import main

main()
