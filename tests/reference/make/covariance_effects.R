# Structured random effects by glmmTMB: writes covariance_effects.json beside this folder.
#     Rscript tests/reference/make/covariance_effects.R
# glmmTMB's REML Laplace of cov_gau_field is 2e-5 off, the kernel being ill-conditioned: its log-likelihood and
# coefficients are those of dense algebra at the same estimates.
suppressPackageStartupMessages({library(glmmTMB); library(jsonlite)})
here <- dirname(sub("--file=", "", grep("--file=", commandArgs(FALSE), value = TRUE)))
old <- fromJSON(file.path(here, "..", "covariance_effects.json"), simplifyVector = FALSE)
schema <- fromJSON(file.path(here, "..", "data", "schema.json"), simplifyVector = FALSE)
read <- function(name) {
  d <- read.csv(gzfile(file.path(here, "..", "data", paste0(name, ".csv.gz"))), check.names = FALSE)
  for (s in schema[[name]]$columns) if (s$kind == "factor") d[[s$name]] <- factor(d[[s$name]], levels = unlist(s$levels))
  d
}
tight <- glmmTMBControl(optCtrl = list(iter.max = 2000, eval.max = 2000, rel.tol = 1e-14))
for (name in names(old)) {
  m <- old[[name]]
  fit <- glmmTMB(as.formula(m$formula), read(m$data), family = m$family, REML = m$reml, control = tight)
  if (name != "cov_gau_field") {
    m$log_likelihood <- as.numeric(logLik(fit)); m$coefficients <- unname(fixef(fit)$cond)
  }
  v <- VarCorr(fit)$cond
  for (t in seq_along(v)) {
    keep <- seq_along(m$terms[[t]]$sd)
    m$terms[[t]]$sd <- unname(attr(v[[t]], "stddev"))[keep]
    if (length(m$terms[[t]]$cor)) m$terms[[t]]$cor <- unname(attr(v[[t]], "correlation"))[keep, keep, drop = FALSE]
  }
  old[[name]] <- m
}
write(toJSON(old, digits = 15, auto_unbox = TRUE), file.path(here, "..", "covariance_effects.json"))
