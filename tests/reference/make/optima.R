# optima.json: fits by lme4 where the regressions within and between groups disagree.
# Run in this directory: Rscript optima.R

suppressPackageStartupMessages(library(lme4))
source("common.R")

# J groups of n rows, slope -1 within groups and `between` for their means.
simpson <- function(J, n, between, s, seed) {
  set.seed(seed)
  g <- rep(seq_len(J), each = n)
  x <- round(2 * g + runif(J * n, 0, 2), 3)
  data.frame(g, h = rep(seq_len(n) %% 5, J), x, y = round(between * g - (x - 2 * g) + s * rnorm(J * n), 3))
}

# The covariate is the number of the row, and the groups are steps.
steps <- function(J, n, height, s, seed) {
  set.seed(seed)
  g <- rep(seq_len(J), each = n)
  data.frame(g, h = rep(seq_len(n) %% 5, J), x = seq_len(J * n) - 1, y = round(height * g + s * rnorm(J * n), 3))
}

one <- function(data, random) {
  formula <- as.formula(paste("y ~ x +", random))
  fits <- lapply(c(TRUE, FALSE), function(reml) {
    m <- best_lmer(formula, data, reml)
    list(reml = reml, criterion = if (reml) REMLcrit(m) else -2 * c(logLik(m)), beta = unname(fixef(m)),
         se = unname(sqrt(diag(as.matrix(vcov(m))))), theta = I(unname(getME(m, "theta"))), sigma = sigma(m))
  })
  list(formula = paste("y ~ x +", random), data = data, fits = fits)
}

eight <- simpson(8, 15, 3, 0.5, 1)
three <- steps(3, 4, 5, 1, 2)
profiled <- best_lmer(y ~ x + (1 | g), eight, FALSE)
write_reference("optima.json", list(
  about = paste("Fits by", versions("lme4")),
  fits = list(
    one(eight, "(1 | g)"), one(eight, "(x | g)"), one(eight, "(1 | g) + (1 | h)"), one(eight, "(1 | g/h)"),
    one(three, "(1 | g)"), one(steps(20, 10, 3, 1, 3), "(1 | g)"), one(simpson(10, 10, 3, 1, 4), "(1 | g)")),
  profile = suppressWarnings(suppressMessages(unname(as.matrix(confint(profiled, method = "profile")))))))
