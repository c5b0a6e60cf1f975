"""Small programs that run on the head. They need Python and Ray's own dependencies; Thawline may be another one there,
or none.
"""
