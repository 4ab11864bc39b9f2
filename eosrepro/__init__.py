"""eosrepro: reproduce, trust and vary edge-of-stability experiments."""

__version__ = "0.1.0"
