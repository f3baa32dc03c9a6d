"""Settings of the whole suite."""

import hypothesis  # noqa: F401 - early: imported late, its plugin for trio warns, which is an error
