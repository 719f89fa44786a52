FROM espalier/torch:0.1.0
COPY my-plugin /tmp/my-plugin
RUN pip install --no-deps /tmp/my-plugin
