"""``python -m speechssl.cli``, as torchrun starts it."""

from speechssl.cli.main import main

main()
