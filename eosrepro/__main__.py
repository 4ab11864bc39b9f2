"""`python -m eosrepro`: the same as the command `eosrepro`."""

from eosrepro.cli import main

if __name__ == "__main__":
    main(prog_name="eosrepro")
