# Meta-analyses with a known covariance of the rows, and without random effects, by metafor.
# Run: Rscript meta_rows.R > ../meta_rows.json
suppressMessages({library(metafor); library(jsonlite)})
d <- read.csv(gzfile("../data/dat_bcg.csv.gz"))
# Effects of one kind of allocation share something: correlations of .3 between them.
V <- outer(sqrt(d$vi), sqrt(d$vi)) * (0.3 * outer(d$alloc, d$alloc, "==") + 0.7 * diag(nrow(d)))
mv <- rma.mv(yi, V, mods = ~ablat, random = ~1 | trial, data = d, control = list(rel.tol = 1e-10, x.tol = 1e-10))
equal <- rma(yi, vi, data = d, method = "EE")
with <- function(fit) list(beta = as.numeric(fit$b), se = fit$se, sigma2 = fit$sigma2, Q = fit$QE, logLik = as.numeric(logLik(fit)))
cat(toJSON(list(mv = with(mv), equal = with(equal)), digits = NA, auto_unbox = TRUE))
