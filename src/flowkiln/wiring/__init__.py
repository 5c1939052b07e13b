"""Where concrete classes meet: settings become indexes, locks, trees, prefixes, a store and a driver.

Everything below this folder takes what it needs as values; nothing but the command line imports it.
"""
