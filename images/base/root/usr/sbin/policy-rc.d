#!/bin/sh
# There is no init system: packages must not try to start their services.
exit 101
