# SPDX-License-Identifier: Apache-2.0
"""`python -m fluoronav`."""

from fluoronav.cli.app import main

if __name__ == "__main__":
    main()
