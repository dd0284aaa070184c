"""``signal-relay bridge --check``: what a bridge would find at both its ends, and what it would do.

Knows the bridge's options and what it looks at; that it runs, ``twistd`` sees to.
"""
