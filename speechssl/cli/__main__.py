"""``python -m speechssl.cli``, as torchrun starts it."""

from speechssl.cli.app import main

main()
