"""What there is: numbers, scenes, captions, motion, drawing, faults made on purpose, and data sets of them.

`tables` fixes every number, `scene` says what can happen, `grammar` says it in words, `motion` moves it, `render`
draws it, `defects` breaks it on purpose, `corpora` puts clips and captions together, and `wanted` says what a caption
asks for.
"""
