# SPDX-License-Identifier: Apache-2.0
"""The learned parts, as torch modules. Torch is needed to train and to export them, never to run the program."""
