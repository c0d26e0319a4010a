# The guest goes away without a word about the result.
# kernels: 6.12
# limit: 120
# memory: 512M
echo o >/proc/sysrq-trigger
sleep 60
