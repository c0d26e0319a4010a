# Never ends, and pays no heed to signals.
# kernels: 6.12
# limit: 60
# memory: 512M
trap '' INT TERM HUP
while :; do :; done
