"""``python -m speechssl.cli``, as torchrun starts it."""

from speechssl.cli.start import main

main()
