#!/bin/sh
# Makes the dashboard one page: page.sh UPLOT_DIR OUT puts uPlot, its licence and user/ops/dashboard/ together.
set -eu
uplot=$1
out=$2
src=user/ops/dashboard

# The licence that comes with the package is the one in the source tree, or somebody has to look at what has changed.
cmp -s "$uplot/LICENSE" "$src/uPlot.LICENSE" || { echo "page.sh: the licence of $uplot is not $src/uPlot.LICENSE" >&2; exit 1; }

style="$uplot/dist/uPlot.min.css $src/dashboard.css"
script="$uplot/dist/uPlot.iife.min.js"
for part in format tables heat charts gate actions main; do script="$script $src/$part.js"; done

awk -v licence="$src/uPlot.LICENSE" -v style="$style" -v script="$script" '
	function put(files,    name, n, i, text) {
		n = split(files, name, " ")
		for (i = 1; i <= n; i++) {
			while ((getline text < name[i]) > 0) print text
			close(name[i])
		}
	}
	$0 == "@LICENSE@" { put(licence); next }
	$0 == "<style>@STYLE@</style>" { print "<style>"; put(style); print "</style>"; next }
	$0 == "<script>@SCRIPT@</script>" { print "<script>\n\"use strict\";"; put(script); print "</script>"; next }
	{ print }
' "$src/index.html" >"$out"
