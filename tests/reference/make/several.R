# Several responses (mvbind), wide data made long by hand: writes several.json beside this folder.
#     Rscript tests/reference/make/several.R
# The likelihood is dense algebra over the rows of each group, with covariances G (groups) and R (rows) by their log
# Cholesky factors, minimised by nlminb and BFGS and polished by Newton steps; nlme::lme, which stops up to 1e-7 short of
# its own optimum, is beside it. Satterthwaite's degrees of freedom from numerical derivatives.
suppressPackageStartupMessages({library(nlme); library(numDeriv); library(jsonlite)})
here <- dirname(sub("--file=", "", grep("--file=", commandArgs(FALSE), value = TRUE)))
read <- function(name) read.csv(gzfile(file.path(here, "..", "data", paste0(name, ".csv.gz"))))

long <- function(data, responses) {
  data$row <- seq_len(nrow(data))
  out <- do.call(rbind, lapply(responses, function(r) cbind(data, trait = r, value = data[[r]])))
  out <- out[!is.na(out$value), ]
  out$trait <- factor(out$trait, responses)
  out[order(out$row, out$trait), ]
}
root <- function(p, D) { L <- matrix(0, D, D); L[lower.tri(L, TRUE)] <- p; diag(L) <- exp(diag(L)); L }

dense <- function(data, responses, group, REML) {
  l <- long(data, responses); D <- length(responses); m <- D * (D + 1) / 2
  X <- model.matrix(~ 0 + trait + trait:x, l); y <- l$value; t <- as.integer(l$trait); p <- ncol(X)
  blocks <- split(seq_len(nrow(l)), l[[group]])
  pieces <- function(par) {
    G <- tcrossprod(root(par[1:m], D)); R <- tcrossprod(root(par[m + 1:m], D))
    logdet <- 0; A <- matrix(0, p, p); b <- numeric(p); c <- 0
    for (i in blocks) {
      V <- G[t[i], t[i]] + R[t[i], t[i]] * outer(l$row[i], l$row[i], "==")
      U <- chol(V); W <- backsolve(U, cbind(X[i, , drop = FALSE], y[i]), transpose = TRUE)
      logdet <- logdet + 2 * sum(log(diag(U)))
      A <- A + crossprod(W[, 1:p]); b <- b + crossprod(W[, 1:p], W[, p + 1]); c <- c + sum(W[, p + 1]^2)
    }
    beta <- solve(A, b)
    value <- logdet + c - sum(b * beta) + (length(y) - if (REML) p else 0) * log(2 * pi)
    list(value = value + if (REML) as.numeric(determinant(A)$modulus) else 0, beta = drop(beta), vcov = solve(A))
  }
  f <- function(par) pieces(par)$value
  start <- rep(c(diag(log(0.7), D)[lower.tri(diag(D), TRUE)]), 2)
  best <- nlminb(start, f, control = list(rel.tol = 1e-14, iter.max = 2000, eval.max = 4000))$par
  best <- optim(best, f, method = "BFGS", control = list(reltol = 1e-15, maxit = 500))$par
  for (k in 1:2) best <- best - solve(hessian(f, best), grad(f, best))
  found <- pieces(best); A <- 2 * solve(hessian(f, best))
  df <- sapply(1:p, function(j) {
    g <- grad(function(par) pieces(par)$vcov[j, j], best)
    2 * found$vcov[j, j]^2 / drop(g %*% A %*% g)
  })
  list(logLik = -found$value / 2, names = colnames(X), fixef = found$beta, se = sqrt(diag(found$vcov)), df = df,
       G = tcrossprod(root(best[1:m], D)), R = tcrossprod(root(best[m + 1:m], D)), nobs = length(y))
}

mvn <- read("mvn80")
out <- list(mvn2_reml = dense(mvn, c("y1", "y2"), "id", TRUE), mvn3_ml = dense(mvn, c("y1", "y2", "y3"), "id", FALSE))
check <- lme(value ~ 0 + trait + trait:x, long(mvn, c("y1", "y2")), random = ~ 0 + trait | id,
  correlation = corSymm(form = ~ as.integer(trait) | id/row), weights = varIdent(form = ~ 1 | trait),
  control = lmeControl(msMaxIter = 500, tolerance = 1e-10, returnObject = TRUE))
out$mvn2_reml$nlme <- as.numeric(logLik(check))
write_json(out, file.path(here, "..", "several.json"), digits = NA, auto_unbox = TRUE, matrix = "rowmajor")
