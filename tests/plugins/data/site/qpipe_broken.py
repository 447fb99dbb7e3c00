"""A plugin whose vendor's library is not installed."""

import a_vendor_library_that_is_not_here  # noqa: F401
