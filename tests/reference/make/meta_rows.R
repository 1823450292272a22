# Meta-analyses with a known covariance of the rows, and without random effects, by metafor: ../meta_rows.json.
source("common.R")
suppressPackageStartupMessages(library(metafor))

d <- read_data("dat_bcg")
# Effects of one kind of allocation share something: correlations of .3 between them.
V <- outer(sqrt(d$vi), sqrt(d$vi)) * (0.3 * outer(as.character(d$alloc), as.character(d$alloc), "==") + 0.7 * diag(nrow(d)))
mv <- rma.mv(yi, V, mods = ~ablat, random = ~1 | trial, data = d, control = list(rel.tol = 1e-10, x.tol = 1e-10))
equal <- rma(yi, vi, data = d, method = "EE")
estimates <- function(fit) list(beta = as.numeric(fit$b), se = fit$se, Q = fit$QE, logLik = as.numeric(logLik(fit)))
write_reference("meta_rows.json", list(mv = estimates(mv), equal = estimates(equal)))
