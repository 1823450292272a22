# Worker that fits with R's lme4.

suppressPackageStartupMessages(library(lme4))

here <- dirname(sub("^--file=", "", grep("^--file=", commandArgs(), value = TRUE)))
source(file.path(here, "protocol.R"))

fit <- function(task) {
  formula <- as.formula(task$formula)
  if (task$family == "gaussian") return(lmer(formula, task$data, REML = task$reml))
  if (task$family == "nbinomial") return(glmer.nb(formula, task$data))
  family <- switch(task$family, binomial = binomial, poisson = poisson, gamma = Gamma)
  glmer(formula, task$data, family = family(link = task$link), nAGQ = task$nagq)
}

# With quadrature lme4 leaves out the log-likelihood of the saturated model.
left_out <- function(model, task) {
  if (task$nagq == 1L) return(0)
  y <- getME(model, "y")
  family(model)$aic(y, rep(1, length(y)), y, weights(model), 0)
}

describe <- function(model, task) {
  singular <- isSingular(model)
  list(
    # The log-likelihood of gamma models is defined in another way than that of all other programs.
    criterion = if (task$family == "gamma") NA else -2 * as.numeric(logLik(model)) + left_out(model, task),
    evaluations = model@optinfo$feval,
    converged = length(model@optinfo$conv$lme4) == 0 || singular,
    singular = singular
  )
}

# 95 % limits, fixed effects first.
profile_limits <- function(model, task) {
  limits <- confint(model, oldNames = FALSE, quiet = TRUE)
  group <- match(substr(rownames(limits), 1, 3), c("sd_", "cor", "sig"), nomatch = 0)
  unname(split(limits[order(group), ], seq_len(nrow(limits))))
}

# Standard deviations of the fixed effects over replicates of all parameters, a part of them.
bootstrap <- function(model, task) {
  counts <- as.integer(strsplit(task$detail, ",", fixed = TRUE)[[1]])
  scale <- if (isLMM(model)) sigma else function(model) NULL
  made <- bootMer(model, function(m) c(fixef(m), getME(m, "theta"), scale(m)), nsim = counts[2], seed = 1)
  spread <- apply(made$t[, seq_along(fixef(model)), drop = FALSE], 2, sd, na.rm = TRUE)
  structure(as.list(unname(spread)), scale = counts[1] / counts[2])
}

# Change of each fixed effect when a row is left out.
leave_out_rows <- function(model, task) {
  # influence() evaluates the call again, where the names of the worker's function are not known.
  model@call$formula <- formula(model)
  model@call$REML <- task$reml
  left <- influence(model, data = task$data)[["fixed.effects[-case]"]]
  unname(as.list(as.data.frame(left - rep(fixef(model), each = nrow(left)))))
}

serve("lme4", fit, describe, list(profile = profile_limits, bootstrap = bootstrap, influence = leave_out_rows))
