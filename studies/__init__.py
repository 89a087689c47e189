"""Questions with their measurements and pages; outside the package and above all of it.

python -m studies --list
python -m studies NAME --help
"""
