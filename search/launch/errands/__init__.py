"""Small programs that run on the head. They need Python and Ray's own dependencies, and no Thawline, whose version there
may be another one or none.
"""
