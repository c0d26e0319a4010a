# The kernel dies.
# kernels: 6.12
# limit: 120
# memory: 512M
echo c >/proc/sysrq-trigger
