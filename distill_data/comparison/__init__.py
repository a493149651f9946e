"""The claim, measured: how many tokens a student needs with the teacher's distributions, and how many without.

arms      the trainings of a comparison
curves    held-out curves; where one reaches what another ended at; intervals over seeds (pure)
findings  what the trained students' metrics say
page      one HTML page with the curves and the table
"""
